-- figure_5: roofline of the operators of Llama-2-7b on an A6000 in 16 bits, both stages.
-- grain: sheet, weight_format, activation_format, stage, part, operator
-- reads: llm_viewer_operators_of, operators_of
-- variables: model_id = meta-llama/Llama-2-7b-hf, hardware_id = llm_viewer/nvidia_A6000, batch = 1, input_len = 2048
with question as (
    select
        coalesce(getvariable('model_id'), 'meta-llama/Llama-2-7b-hf') as model_id,
        coalesce(getvariable('hardware_id'), 'llm_viewer/nvidia_A6000') as hardware_id,
        coalesce(cast(getvariable('batch') as integer), 1) as batch,
        coalesce(cast(getvariable('input_len') as integer), 2048) as input_len,
        f.weight_format,
        f.activation_format,
        f.kv_format,
        'eager' as attention
    from (
        values
            ('fp16', 'fp16', 'fp16')
    ) as f(weight_format, activation_format, kv_format)
),

answered as (
    select
        'exact' as sheet,
        *
    from operators_of('question')
    union all by name
    select
        'llm_viewer' as sheet,
        *
    from llm_viewer_operators_of('question')
)

select
    sheet,
    weight_format,
    activation_format,
    stage,
    part,
    operator,
    count,
    matrix_ops,
    ops,
    memory_bytes,
    arithmetic_intensity,
    compute_format,
    peak_ops_per_s,
    attainable_ops_per_s,
    time_s,
    count * time_s / sum(count * time_s) over (
        partition by sheet, weight_format, activation_format, stage
    ) as share,
    bound
from answered
order by
    sheet,
    weight_format,
    activation_format,
    stage,
    part,
    operator
