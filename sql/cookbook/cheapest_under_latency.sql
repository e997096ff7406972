-- question: Which deployment of each model is cheapest, if the first token may take half a second and each next 50 ms?
-- grain: model_id
-- reads: serving
-- variables: ttft_s = 0.5, tpot_s = 0.05
select
    model_id,
    hardware_id,
    precision,
    tp,
    batch,
    input_len,
    usd_per_million_output_tokens
from serving
where
    fits
    and ttft_s <= coalesce(cast(getvariable('ttft_s') as double), 0.5)
    and tpot_s <= coalesce(cast(getvariable('tpot_s') as double), 0.05)
    and usd_per_million_output_tokens is not null
qualify row_number() over (
    partition by model_id
    order by usd_per_million_output_tokens asc, scenario_row asc
) = 1
order by usd_per_million_output_tokens asc, model_id asc
