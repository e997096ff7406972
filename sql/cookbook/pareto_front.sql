-- question: Which deployments of a model are beaten by none in both tokens per second per user and per device?
-- grain: scenario_row
-- reads: serving
-- variables: model_id = meta-llama/Meta-Llama-3-8B, input_len = 2048
with possible as (
    select *
    from serving
    where
        model_id = coalesce(getvariable('model_id'), 'meta-llama/Meta-Llama-3-8B')
        and input_len = coalesce(cast(getvariable('input_len') as double), 2048)
        and fits
        and tokens_per_s_per_user is not null
),

compared as (
    select
        *,
        max(output_tokens_per_s_per_device) over (
            order by tokens_per_s_per_user desc
            range between unbounded preceding and current row
        ) as best_as_fast,
        max(output_tokens_per_s_per_device) over (
            order by tokens_per_s_per_user desc
            range between unbounded preceding and current row exclude group
        ) as best_faster
    from possible
)

select
    scenario_row,
    hardware_id,
    precision,
    tp,
    batch,
    tokens_per_s_per_user,
    output_tokens_per_s_per_device
from compared
where
    output_tokens_per_s_per_device = best_as_fast
    and output_tokens_per_s_per_device > coalesce(best_faster, 0)
order by tokens_per_s_per_user desc, scenario_row asc
