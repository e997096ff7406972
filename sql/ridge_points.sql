-- ridge_points: the arithmetic intensity (op/byte) above which compute limits, per device and known peak.
-- grain: hardware_id, peak
-- reads: hardware
with peaks as (
    select
        hardware_id,
        memory_bandwidth_bytes_per_s,
        unnest([
            {'peak': 'fp32', 'peak_ops_per_s': fp32_ops_per_s},
            {'peak': 'tf32', 'peak_ops_per_s': tf32_ops_per_s},
            {'peak': 'fp16', 'peak_ops_per_s': fp16_ops_per_s},
            {'peak': 'bf16', 'peak_ops_per_s': bf16_ops_per_s},
            {'peak': 'fp8', 'peak_ops_per_s': fp8_ops_per_s},
            {'peak': 'int8', 'peak_ops_per_s': int8_ops_per_s},
            {'peak': 'int4', 'peak_ops_per_s': int4_ops_per_s},
            {'peak': 'fp4', 'peak_ops_per_s': fp4_ops_per_s},
            {'peak': 'vector_fp32', 'peak_ops_per_s': vector_fp32_ops_per_s}
        ], recursive := true)
    from hardware
)

select
    hardware_id,
    peak,
    peak_ops_per_s,
    peak_ops_per_s / memory_bandwidth_bytes_per_s as ridge_intensity
from peaks
where peak_ops_per_s is not null
