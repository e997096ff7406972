-- table_1: Table 1 of the survey: the operators of one layer of Llama-2-7b on an A6000, batch 1, length 2048.
-- grain: sheet, stage, layer
-- reads: llm_viewer_operators_of, operators_of
-- variables: model_id = meta-llama/Llama-2-7b-hf, hardware_id = llm_viewer/nvidia_A6000, batch = 1, input_len = 2048
with question as (
    select
        coalesce(getvariable('model_id'), 'meta-llama/Llama-2-7b-hf') as model_id,
        coalesce(getvariable('hardware_id'), 'llm_viewer/nvidia_A6000') as hardware_id,
        coalesce(cast(getvariable('batch') as integer), 1) as batch,
        coalesce(cast(getvariable('input_len') as integer), 2048) as input_len,
        'w16a16kv16' as precision,
        'eager' as attention
),

printed as (
    select *
    from (
        values
            (1, 'q_proj', 'q_proj'),
            (2, 'k_proj', 'k_proj'),
            (3, 'v_proj', 'v_proj'),
            (4, 'out_proj', 'o_proj'),
            (5, 'gate_proj', 'gate_proj'),
            (6, 'up_proj', 'up_proj'),
            (7, 'down_proj', 'down_proj'),
            (8, 'qk_matmul', 'qk_matmul'),
            (9, 'sv_matmul', 'sv_matmul'),
            (10, 'softmax', 'softmax'),
            (11, 'attn_norm', 'norm'),
            (12, 'attn_add', 'add')
    ) as t (line, operator, layer)
),

answered as (
    select
        'llm_viewer' as sheet,
        *
    from llm_viewer_operators_of('question')
    union all by name
    select
        'exact' as sheet,
        *
    from operators_of('question')
),

computed as (
    select
        o.sheet,
        o.stage,
        p.line,
        p.layer,
        o.ops,
        o.memory_bytes,
        o.arithmetic_intensity,
        o.attainable_ops_per_s,
        o.bound
    from answered as o
    inner join printed as p on p.operator = o.operator
)

select
    sheet,
    stage,
    layer,
    in_short(ops) as ops,
    in_short(memory_bytes) as memory_access,
    case
        when arithmetic_intensity >= 100 then printf('%.0f', arithmetic_intensity)
        else regexp_replace(printf('%.2f', arithmetic_intensity), '\.?0+$', '')
    end as arithmetic_intensity,
    in_short(attainable_ops_per_s) as max_performance,
    bound
from computed
order by
    sheet desc,
    stage desc,
    line
