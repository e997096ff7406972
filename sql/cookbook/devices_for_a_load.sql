-- question: How many devices answer ten requests a second of each model, at the least cost?
-- grain: model_id
-- reads: serving
-- variables: requests_per_s = 10
with loaded as (
    select
        *,
        ceil(coalesce(cast(getvariable('requests_per_s') as double), 10) / requests_per_s) as replicas
    from serving
    where fits and requests_per_s > 0 and usd_per_million_output_tokens is not null
)

select
    model_id,
    hardware_id,
    precision,
    batch,
    input_len,
    replicas,
    replicas * n_devices as devices,
    usd_per_million_output_tokens * output_tokens_per_s * replicas / 1e6 * 3600 as usd_per_hour
from loaded
qualify row_number() over (
    partition by model_id
    order by usd_per_million_output_tokens * output_tokens_per_s * replicas asc, scenario_row asc
) = 1
order by usd_per_hour asc, model_id asc
