-- ridge_points: the arithmetic intensity (op/byte) above which compute limits, per device and peak.
-- grain: hardware_id, peak
-- reads: hardware
with peaks as (
    unpivot (from hardware)
    on
        fp32_ops_per_s,
        tf32_ops_per_s,
        fp16_ops_per_s,
        bf16_ops_per_s,
        fp8_ops_per_s,
        int8_ops_per_s,
        int4_ops_per_s,
        fp4_ops_per_s,
        vector_fp32_ops_per_s
    into
        name peak
        value peak_ops_per_s
)

select
    hardware_id,
    replace(peak, '_ops_per_s', '') as peak,
    peak_ops_per_s,
    peak_ops_per_s / memory_bandwidth_bytes_per_s as ridge_intensity
from peaks
