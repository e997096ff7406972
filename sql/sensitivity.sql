-- sensitivity: what to buy more of: the change of each metric in percent per percent of more compute, bandwidth, ...
-- grain: scenario_row, metric, resource
-- reads: serving
with parts as (
    select
        *,
        -prefill_compute_bound_s / ttft_s as ttft_compute,
        -prefill_memory_bound_s / ttft_s as ttft_bandwidth,
        -prefill_link_bound_s / ttft_s as ttft_link,
        -decode_steps_compute_s / nullif(decode_s, 0) as tpot_compute,
        -decode_steps_memory_s / nullif(decode_s, 0) as tpot_bandwidth,
        -decode_steps_link_s / nullif(decode_s, 0) as tpot_link,
        -(prefill_compute_bound_s + decode_steps_compute_s) / e2e_s as e2e_compute,
        -(prefill_memory_bound_s + decode_steps_memory_s) / e2e_s as e2e_bandwidth,
        -(prefill_link_bound_s + decode_steps_link_s) / e2e_s as e2e_link,
        memory_capacity_bytes / nullif(memory_capacity_bytes - reserve_bytes - weight_memory_bytes, 0) as batch_capacity
    from serving
    where ttft_s is not null
),

listed as (
    select
        scenario_row,
        model_id,
        hardware_id,
        workload_id,
        unnest([
            {'metric': 'ttft_s', 'resource': 'compute', 'elasticity': ttft_compute},
            {'metric': 'ttft_s', 'resource': 'bandwidth', 'elasticity': ttft_bandwidth},
            {'metric': 'ttft_s', 'resource': 'link', 'elasticity': ttft_link},
            {'metric': 'ttft_s', 'resource': 'capacity', 'elasticity': 0},
            {'metric': 'tpot_s', 'resource': 'compute', 'elasticity': tpot_compute},
            {'metric': 'tpot_s', 'resource': 'bandwidth', 'elasticity': tpot_bandwidth},
            {'metric': 'tpot_s', 'resource': 'link', 'elasticity': tpot_link},
            {'metric': 'tpot_s', 'resource': 'capacity', 'elasticity': 0},
            {'metric': 'e2e_s', 'resource': 'compute', 'elasticity': e2e_compute},
            {'metric': 'e2e_s', 'resource': 'bandwidth', 'elasticity': e2e_bandwidth},
            {'metric': 'e2e_s', 'resource': 'link', 'elasticity': e2e_link},
            {'metric': 'e2e_s', 'resource': 'capacity', 'elasticity': 0},
            {'metric': 'output_tokens_per_s', 'resource': 'compute', 'elasticity': -e2e_compute},
            {'metric': 'output_tokens_per_s', 'resource': 'bandwidth', 'elasticity': -e2e_bandwidth},
            {'metric': 'output_tokens_per_s', 'resource': 'link', 'elasticity': -e2e_link},
            {'metric': 'output_tokens_per_s', 'resource': 'capacity', 'elasticity': 0},
            {'metric': 'max_batch', 'resource': 'compute', 'elasticity': 0},
            {'metric': 'max_batch', 'resource': 'bandwidth', 'elasticity': 0},
            {'metric': 'max_batch', 'resource': 'link', 'elasticity': 0},
            {'metric': 'max_batch', 'resource': 'capacity', 'elasticity': if(max_batch > 0, batch_capacity, null)}
        ], recursive := true)
    from parts
)

select
    *,
    coalesce(rank() over (partition by scenario_row, metric order by abs(elasticity) desc) = 1, false)
    and elasticity <> 0 as is_largest
from listed
where elasticity is not null
