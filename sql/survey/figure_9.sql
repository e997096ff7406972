-- figure_9: time of a prefill of Llama-2-13b on an A6000 by length and bits of a weight.
-- grain: sheet, stage, batch, input_len, weight_format, activation_format, kv_format, attention
-- reads: llm_viewer_stages_of, stages_of
-- variables: model_id = meta-llama/Llama-2-13b-hf, hardware_id = llm_viewer/nvidia_A6000, batch = 1
with question as (
    select
        coalesce(getvariable('model_id'), 'meta-llama/Llama-2-13b-hf') as model_id,
        coalesce(getvariable('hardware_id'), 'llm_viewer/nvidia_A6000') as hardware_id,
        coalesce(cast(getvariable('batch') as integer), 1) as batch,
        l.length as input_len,
        w.format as weight_format,
        'fp16' as activation_format,
        'fp16' as kv_format,
        'eager' as attention
    from (select unnest(['fp16', 'int8', 'int4', 'int2', 'int1']) as format) as w
    cross join (
        select unnest(list_concat(range(16, 64), range(64, 1024, 8), [1023])) as length
    ) as l
),

answered as (
    select
        'exact' as sheet,
        *
    from stages_of('question')
    union all by name
    select
        'llm_viewer' as sheet,
        *
    from llm_viewer_stages_of('question')
)

select
    sheet,
    stage,
    batch,
    input_len,
    weight_format,
    activation_format,
    kv_format,
    attention,
    ops,
    memory_bytes,
    weight_bytes,
    kv_read_bytes,
    time_s,
    batch / time_s as tokens_per_s,
    bound,
    memory_consumption_bytes,
    memory_consumption_weight_bytes,
    memory_consumption_kv_cache_bytes,
    memory_consumption_tmp_act_bytes
from answered
where stage = 'prefill'
order by
    sheet,
    stage,
    batch,
    input_len,
    weight_format,
    activation_format,
    kv_format,
    attention
