-- disaggregation: pools of one device that prefills and another that decodes, in the ratio in which neither waits.
-- grain: scenario_row, prefill_hardware_id
-- reads: serving
with pools as (
    select
        *,
        usd_per_million_output_tokens * output_tokens_per_s / 1e6 as replica_usd_per_s
    from serving
    where fits and prefill_requests_per_s is not null
)

select
    d.scenario_row,
    p.device_id as prefill_hardware_id,
    d.model_id,
    d.hardware_id,
    d.workload_id,
    d.batch,
    d.decode_requests_per_s / p.prefill_requests_per_s as prefill_replicas_per_decode_replica,
    d.decode_requests_per_s
    / (d.n_devices + p.n_devices * d.decode_requests_per_s / p.prefill_requests_per_s) as requests_per_s_per_device,
    p.lone_prompt_s + d.prompt_kv_bytes / least(d.scaleout_bytes_per_s, p.scaleout_bytes_per_s) as ttft_s,
    d.tpot_s,
    1e6 * (d.replica_usd_per_s / d.decode_requests_per_s + p.replica_usd_per_s / p.prefill_requests_per_s)
    / d.output_tokens as usd_per_million_output_tokens,
    case
        when d.kv_transfer_s is null or p.kv_transfer_s is null
            then 'hardware.scaleout_link_bytes_per_s is unknown: 50e9 bytes/s stand in'
    end as assumed
from pools as d
inner join pools as p
    on
        d.question_id = p.question_id
        and d.formats_id = p.formats_id
        and d.sequences = p.sequences
        and coalesce(d.tp, 1) = coalesce(p.tp, 1)
        and coalesce(d.pp, 1) = coalesce(p.pp, 1)
        and coalesce(d.ep, 1) = coalesce(p.ep, 1)
        and coalesce(d.cp, 1) = coalesce(p.cp, 1)
where d.decode_requests_per_s is not null
qualify row_number() over (partition by d.scenario_row, p.device_id order by p.scenario_row) = 1
