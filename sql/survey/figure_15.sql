-- figure_15: what fusing two operators gains where both are limited by memory, and where the first is by compute.
-- grain: sheet, panel, what
-- reads: hardware, llm_viewer_operators_of, operators_of
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

pairs as (
    select *
    from (
        values
            ('memory-bound', 'attn_add', 1),
            ('memory-bound', 'mlp_norm', 2),
            ('compute-bound', 'up_proj', 1),
            ('compute-bound', 'mlp_act', 2)
    ) as p (panel, operator, nth)
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
),

alone as (
    select
        a.sheet,
        p.panel,
        p.nth,
        p.operator as what,
        a.ops,
        a.memory_bytes,
        a.activation_write_bytes,
        a.compute_s,
        a.time_s
    from pairs as p
    inner join answered as a on p.operator = a.operator and a.stage = 'prefill'
),

-- the first writes what the second would read: neither happens, and both run at once
fused as (
    select
        sheet,
        panel,
        3 as nth,
        string_agg(what, ' + ' order by nth) as what,
        sum(ops) as ops,
        sum(memory_bytes) - 2 * first(activation_write_bytes order by nth) as memory_bytes,
        greatest(
            sum(compute_s),
            (sum(memory_bytes) - 2 * first(activation_write_bytes order by nth)) / any_value(memory_bandwidth_bytes_per_s)
        ) as time_s,
        sum(time_s) as apart_s
    from alone
    cross join (
        select memory_bandwidth_bytes_per_s from hardware where hardware_id = coalesce(getvariable('hardware_id'), 'llm_viewer/nvidia_A6000')
    ) as device
    group by sheet, panel
),

every_row as (
    select
        sheet,
        panel,
        nth,
        what,
        ops,
        memory_bytes,
        time_s,
        cast(null as double) as apart_s
    from alone
    union all
    select
        sheet,
        panel,
        nth,
        what,
        ops,
        memory_bytes,
        time_s,
        apart_s
    from fused
)

select
    sheet,
    panel,
    what,
    ops,
    memory_bytes,
    ops / memory_bytes as arithmetic_intensity,
    time_s,
    ops / time_s as attainable_ops_per_s,
    apart_s,
    1 - time_s / apart_s as saved_share
from every_row
order by
    sheet,
    panel desc,
    nth
