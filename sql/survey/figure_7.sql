-- figure_7: memory and time of Llama-2-13b on an A6000 by the formats of weights, activations and KV cache.
-- grain: sheet, stage, batch, input_len, weight_format, activation_format, kv_format
-- reads: llm_viewer_stages_of, serving_of, stages_of
-- variables: model_id = meta-llama/Llama-2-13b-hf, hardware_id = llm_viewer/nvidia_A6000
with question as (
    select
        coalesce(getvariable('model_id'), 'meta-llama/Llama-2-13b-hf') as model_id,
        coalesce(getvariable('hardware_id'), 'llm_viewer/nvidia_A6000') as hardware_id,
        p.batch,
        p.input_len,
        1 as output_len,
        f.weight_format,
        f.activation_format,
        f.kv_format,
        'eager' as attention
    from (
        values
            ('fp16', 'fp16', 'fp16'),
            ('int4', 'fp16', 'fp16'),
            ('int4', 'fp16', 'int4'),
            ('int4', 'int4', 'int4')
    ) as f(weight_format, activation_format, kv_format)
    cross join (
        values (1, 1024), (1, 4096), (16, 1024)
    ) as p(batch, input_len)
),

answered as (
    select
        'exact' as sheet,
        s.*,
        m.weight_memory_bytes,
        m.kv_cache_bytes,
        m.activation_peak_bytes as activation_bytes,
        m.memory_needed_bytes
    from stages_of('question') as s
    inner join serving_of('question') as m on s.scenario_row = m.scenario_row
    union all by name
    select
        'llm_viewer' as sheet,
        *,
        memory_consumption_weight_bytes as weight_memory_bytes,
        memory_consumption_kv_cache_bytes as kv_cache_bytes,
        memory_consumption_tmp_act_bytes as activation_bytes,
        memory_consumption_bytes as memory_needed_bytes
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
    ops,
    memory_bytes,
    time_s,
    weight_memory_bytes,
    kv_cache_bytes,
    activation_bytes,
    memory_needed_bytes
from answered
order by
    sheet,
    stage,
    batch,
    input_len,
    weight_format,
    activation_format,
    kv_format
