-- figure_19: decode steps of Llama-2-13b in 8 bits on an A6000 by batch and length: latency, throughput, memory.
-- grain: sheet, stage, batch, input_len, weight_format, activation_format, kv_format, attention
-- reads: llm_viewer_stages_of, stages_of
-- variables: model_id = meta-llama/Llama-2-13b-hf, hardware_id = llm_viewer/nvidia_A6000
with question as (
    select
        coalesce(getvariable('model_id'), 'meta-llama/Llama-2-13b-hf') as model_id,
        coalesce(getvariable('hardware_id'), 'llm_viewer/nvidia_A6000') as hardware_id,
        b.batch as batch,
        l.length as input_len,
        'int8' as weight_format,
        'int8' as activation_format,
        'int8' as kv_format,
        'eager' as attention
    from (select unnest(range(1, 128)) as batch) as b
    cross join (select unnest([256, 512, 1024, 2048]) as length) as l
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
where stage = 'decode'
order by
    sheet,
    stage,
    batch,
    input_len,
    weight_format,
    activation_format,
    kv_format,
    attention
