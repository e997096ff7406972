-- question: Which deployments fit, but leave less than 3 % of the memory free?
-- grain: scenario_row
-- reads: serving
select
    scenario_row,
    model_id,
    hardware_id,
    precision,
    tp,
    batch,
    input_len,
    1 - memory_needed_bytes / memory_capacity_bytes as free_share
from serving
where fits and memory_needed_bytes > 0.97 * memory_capacity_bytes
order by free_share asc, scenario_row asc
