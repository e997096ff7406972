-- bottlenecks: where the time of a stage goes: seconds and share per part and ceiling.
-- grain: model_id, hardware_id, workload_id, stage, part, bound
-- reads: operators
with limited as (
    select
        model_id,
        hardware_id,
        workload_id,
        stage,
        part,
        bound,
        sum(count * time_s) as time_s
    from operators
    where bound is not null
    group by all
)

select
    *,
    time_s / sum(time_s) over (partition by model_id, hardware_id, workload_id, stage) as time_share
from limited
