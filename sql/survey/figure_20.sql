-- figure_20: a decode step of Llama-2-13b on a device of 200 TOP/s by its memory bandwidth.
-- grain: sheet, bandwidth_bytes_per_s
-- reads: hardware
-- variables: model_id = meta-llama/Llama-2-13b-hf, batch = 1, input_len = 1024
with question as (
    select
        coalesce(getvariable('model_id'), 'meta-llama/Llama-2-13b-hf') as model_id,
        'llm_viewer/figure_20' as hardware_id,
        coalesce(cast(getvariable('batch') as integer), 1) as batch,
        coalesce(cast(getvariable('input_len') as integer), 1024) as input_len,
        'w16a16kv16' as precision,
        'eager' as attention,
        'bandwidth_scaling' as technique,
        f.bandwidth_factor
    from (select unnest(range(1, 21)) as bandwidth_factor) as f
),

answered as (
    select
        s.sheet,
        q.bandwidth_factor,
        unnest(stage_answers(to_json(q), s.sheet)) as answer
    from question as q
    cross join (select unnest(['exact', 'llm_viewer']) as sheet) as s
)

select
    a.sheet,
    a.bandwidth_factor * h.memory_bandwidth_bytes_per_s as bandwidth_bytes_per_s,
    a.answer.ops as ops,
    a.answer.memory_bytes as memory_bytes,
    a.answer.time_s as time_s,
    a.answer.bound as bound
from answered as a
inner join hardware as h on h.hardware_id = 'llm_viewer/figure_20'
where a.answer.stage = 'decode'
order by
    a.sheet,
    bandwidth_bytes_per_s
