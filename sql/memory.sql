-- memory: what fills the memory of the fullest device of each deployment, beside what is left or missing.
-- grain: scenario_row, item
-- reads: serving
with filled as (
    select
        scenario_row,
        model_id,
        hardware_id,
        workload_id,
        memory_capacity_bytes,
        shortfall_bytes,
        fits,
        reason,
        unnest([
            {'item': 'weights', 'held_bytes': weight_memory_bytes},
            {'item': 'kv_cache', 'held_bytes': kv_cache_bytes},
            {'item': 'activations', 'held_bytes': activation_peak_bytes},
            {'item': 'reserve', 'held_bytes': reserve_bytes},
            {'item': 'free', 'held_bytes': if(fits is null, null, greatest(memory_capacity_bytes - memory_needed_bytes, 0))}
        ], recursive := true)
    from serving
)

select
    scenario_row,
    model_id,
    hardware_id,
    workload_id,
    item,
    held_bytes,
    held_bytes / nullif(memory_capacity_bytes, 0) as capacity_share,
    memory_capacity_bytes,
    shortfall_bytes,
    fits,
    reason
from filled
