-- offload: what to do with the layers that do not fit: stream them to the device, or compute them beside the host.
-- grain: scenario_row, host_id
-- reads: hardware, serving
with cpus as (
    select unnest(list_append(string_split(coalesce(aliases, ''), '|'), hardware_id)) as spelled
    from hardware
    where kind = 'cpu'
),

split as (
    select
        d.scenario_row,
        c.hardware_id as host_id,
        d.model_id,
        d.hardware_id,
        d.workload_id,
        d.batch,
        d.host_layers,
        d.n_layers,
        d.streamed_ttft_s,
        d.streamed_tpot_s,
        d.ttft_s,
        d.tpot_s,
        d.prefill_layers_s,
        d.decode_layers_s,
        c.prefill_layers_s as host_prefill_layers_s,
        c.decode_layers_s as host_decode_layers_s,
        d.decode_s / d.tpot_s as decode_steps,
        greatest(
            least(
                d.n_layers,
                ceil((d.memory_needed_bytes - d.memory_capacity_bytes) / (d.layer_bytes + d.layer_kv_bytes))
            ), 0
        ) as computed_layers,
        d.crossing_s,
        d.input_tokens - coalesce(d.cached_len, 0) as prompt_tokens
    from serving as d
    inner join serving as c
        on
            d.model_id = c.model_id
            and d.workload_id is not distinct from c.workload_id
            and d.batch is not distinct from c.batch
            and d.input_len is not distinct from c.input_len
            and d.output_len is not distinct from c.output_len
            and d.cached_len is not distinct from c.cached_len
            and d.precision is not distinct from c.precision
            and d.attention is not distinct from c.attention
    inner join cpus as h on lower(trim(c.hardware_id)) = lower(trim(h.spelled))
    where
        d.n_devices = 1
        and c.ttft_s is not null
        and lower(trim(d.hardware_id)) not in (select lower(trim(cpus.spelled)) from cpus)
)

select
    scenario_row,
    host_id,
    model_id,
    hardware_id,
    workload_id,
    batch,
    n_layers,
    host_layers as streamed_layers,
    streamed_ttft_s,
    streamed_tpot_s,
    computed_layers,
    ttft_s + computed_layers / n_layers * (host_prefill_layers_s - prefill_layers_s)
    + if(computed_layers > 0, prompt_tokens * crossing_s, 0) as computed_ttft_s,
    tpot_s + computed_layers / n_layers * (host_decode_layers_s - decode_layers_s) / decode_steps
    + if(computed_layers > 0, crossing_s, 0) as computed_tpot_s,
    computed_tpot_s < streamed_tpot_s as is_computing_faster
from split
