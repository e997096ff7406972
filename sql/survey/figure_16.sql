-- figure_16: time and traffic of Llama-2-13b on an A6000 with and without FlashAttention.
-- grain: sheet, stage, batch, input_len, weight_format, activation_format, kv_format, attention
-- reads: llm_viewer_stages_of, stages_of
-- variables: model_id = meta-llama/Llama-2-13b-hf, hardware_id = llm_viewer/nvidia_A6000
with question as (
    select
        coalesce(getvariable('model_id'), 'meta-llama/Llama-2-13b-hf') as model_id,
        coalesce(getvariable('hardware_id'), 'llm_viewer/nvidia_A6000') as hardware_id,
        p.batch as batch,
        p.length as input_len,
        'fp16' as weight_format,
        'fp16' as activation_format,
        'fp16' as kv_format,
        a.attention as attention
    from (
        values (1, 1000), (1, 10000), (1, 100000), (16, 1000), (64, 1000)
    ) as p(batch, length)
    cross join (select unnest(['eager', 'flash']) as attention) as a
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
order by
    sheet,
    stage,
    batch,
    input_len,
    weight_format,
    activation_format,
    kv_format,
    attention
