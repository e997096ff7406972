-- offload: what to do with the layers that do not fit: stream them to the device, or compute them beside the host.
-- grain: scenario_row, host_id
-- reads: hardware, serving
with split as (
    select
        d.*,
        c.device_id as host_id,
        c.prefill_layers_s as host_prefill_layers_s,
        c.decode_layers_s as host_decode_layers_s,
        c.memory_capacity_bytes as host_capacity_bytes,
        d.decode_s / d.tpot_s as decode_steps,
        greatest(
            ceil((d.memory_needed_bytes - d.memory_capacity_bytes) / (d.layer_bytes + d.layer_kv_bytes)), 0
        ) as computed_layers,
        d.input_tokens - coalesce(d.cached_len, 0) as prompt_tokens
    from serving as d
    inner join serving as c
        on d.question_id = c.question_id and d.formats_id = c.formats_id and d.sequences = c.sequences
    inner join hardware as h on c.device_id = h.hardware_id and h.kind = 'cpu'
    where
        d.n_devices = 1
        and c.n_devices = 1
        and c.ttft_s is not null
        and d.device_id not in (select hardware.hardware_id from hardware where hardware.kind = 'cpu')
    qualify row_number() over (partition by d.scenario_row, c.device_id order by c.scenario_row) = 1
),

judged as (
    select
        *,
        can_stream and streamed_ttft_s is not null as can_be_streamed,
        computed_layers <= n_layers
        and computed_layers * (layer_bytes + layer_kv_bytes) <= coalesce(host_capacity_bytes, 'infinity') as can_be_computed,
        if(computed_layers > 0, crossing_s, 0) as crossed_s,
        computed_layers / n_layers as computed_share
    from split
)

select
    scenario_row,
    host_id,
    model_id,
    hardware_id,
    workload_id,
    batch,
    n_layers,
    if(can_be_streamed, host_layers, null) as streamed_layers,
    if(can_be_streamed, streamed_ttft_s, null) as streamed_ttft_s,
    if(can_be_streamed, streamed_tpot_s, null) as streamed_tpot_s,
    if(can_be_computed, computed_layers, null) as computed_layers,
    if(
        can_be_computed,
        ttft_s + computed_share * (host_prefill_layers_s - prefill_layers_s) + prompt_tokens * crossed_s,
        null
    ) as computed_ttft_s,
    if(
        can_be_computed,
        tpot_s + computed_share * (host_decode_layers_s - decode_layers_s) / decode_steps + crossed_s,
        null
    ) as computed_tpot_s,
    computed_tpot_s < streamed_tpot_s as is_computing_faster,
    nullif(concat_ws(
        '; ',
        case
            when not can_stream then 'streaming layers leaves cache and activations, which do not fit'
            when streamed_ttft_s is null then coalesce(reason, 'the host link is unknown')
        end,
        case
            when computed_layers > n_layers then 'activations and reserve do not fit, whatever layers are on the host'
            when not can_be_computed then 'the layers do not fit in the memory of the host'
        end
    ), '') as reason
from judged
