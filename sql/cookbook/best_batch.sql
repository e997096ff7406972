-- question: Up to which batch is it worth to collect requests: where does a model on an H100 reach 80 % of its best cost?
-- grain: model_id, precision, tp, input_len
-- reads: serving
with priced as (
    select
        model_id,
        precision,
        tp,
        input_len,
        batch,
        usd_per_million_output_tokens as usd,
        min(usd_per_million_output_tokens) over (partition by model_id, precision, tp, input_len) as best_usd
    from serving
    where hardware_id = 'nvidia_h100_sxm' and fits and usd_per_million_output_tokens is not null
)

select
    model_id,
    precision,
    tp,
    input_len,
    min(batch) as batch,
    any_value(best_usd) as best_usd
from priced
where usd <= best_usd / 0.8
group by model_id, precision, tp, input_len
order by model_id asc, precision asc, tp asc, input_len asc
