-- figure_18: a decode step on an A6000 whose weights stay with the host, or on the host's CPU, by batch.
-- grain: sheet, batch
-- reads: hardware, llm_viewer_stages_of, stages_of
-- variables: model_id = meta-llama/Llama-2-13b-hf, input_len = 512
with question as (
    select
        coalesce(getvariable('model_id'), 'meta-llama/Llama-2-13b-hf') as model_id,
        d.hardware_id,
        b.batch,
        coalesce(cast(getvariable('input_len') as integer), 512) as input_len,
        'w16a16kv16' as precision,
        'eager' as attention
    from (select unnest(['llm_viewer/nvidia_A6000', 'llm_viewer/intel_13900k']) as hardware_id) as d
    cross join (select unnest([1, 2, 4, 8, 16, 32, 64, 128, 256, 512]) as batch) as b
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
),

-- weights come over the link of the datasheet's A6000 beside the work: the longer counts
compared as (
    select
        g.sheet,
        g.batch,
        g.weight_bytes / link.host_link_bytes_per_s as load_s,
        g.time_s as device_s,
        greatest(g.weight_bytes / link.host_link_bytes_per_s, g.time_s) as streamed_s,
        c.time_s as host_s
    from answered as g
    inner join answered as c
        on
            g.sheet = c.sheet
            and g.batch = c.batch
            and g.stage = c.stage
            and c.hardware_id = 'llm_viewer/intel_13900k'
    cross join (select host_link_bytes_per_s from hardware where hardware_id = 'nvidia_rtx_a6000') as link
    where g.hardware_id = 'llm_viewer/nvidia_A6000' and g.stage = 'decode'
)

select
    *,
    case when streamed_s < host_s then 'stream to the device' else 'compute on the host' end as faster
from compared
order by
    sheet,
    batch
