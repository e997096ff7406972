-- slo: which deployments keep the limits on latency, memory, devices and cost, and why the others do not.
-- grain: scenario_row
-- reads: serving
-- variables: ttft_s = 1, tpot_s = 0.05, devices, usd_per_million_output_tokens
with limits as (
    select
        coalesce(cast(getvariable('ttft_s') as double), 1) as ttft_limit_s,
        coalesce(cast(getvariable('tpot_s') as double), 0.05) as tpot_limit_s,
        cast(getvariable('devices') as double) as devices_limit,
        cast(getvariable('usd_per_million_output_tokens') as double) as usd_limit
),

judged as (
    select
        s.*,
        nullif(concat_ws(
            '; ',
            case
                when s.ttft_s is null or not coalesce(s.fits, false)
                    then coalesce(s.reason, 'it is not known whether it fits')
            end,
            case when s.ttft_s > l.ttft_limit_s then printf('ttft_s %.3g is above %.3g', s.ttft_s, l.ttft_limit_s) end,
            case when s.tpot_s > l.tpot_limit_s then printf('tpot_s %.3g is above %.3g', s.tpot_s, l.tpot_limit_s) end,
            case
                when s.fleet_devices > l.devices_limit
                    then printf('fleet_devices %.0f is above %.0f', s.fleet_devices, l.devices_limit)
            end,
            case
                when l.usd_limit is null then null
                when s.usd_per_million_output_tokens is null then 'its cost is unknown'
                when s.usd_per_million_output_tokens > l.usd_limit
                    then printf(
                        'usd_per_million_output_tokens %.3g is above %.3g', s.usd_per_million_output_tokens, l.usd_limit
                    )
            end
        ), '') as rejection
    from serving as s
    cross join limits as l
)

select
    scenario_row,
    question_id,
    model_id,
    hardware_id,
    workload_id,
    batch,
    input_len,
    output_len,
    precision,
    tp,
    pp,
    ep,
    fleet_devices,
    ttft_s,
    tpot_s,
    output_tokens_per_s_per_device,
    usd_per_million_output_tokens,
    rejection is null as is_accepted,
    rejection as reason
from judged
