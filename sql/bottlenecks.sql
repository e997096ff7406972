-- bottlenecks: where the time of a stage goes: seconds and share per part and ceiling.
-- grain: scenario_row, stage, part, bound
-- reads: operators
-- a stage with an operator whose time is unknown has no row: shares of what is left would mislead
with timed as (
    select *
    from operators
    qualify count(*) over (partition by scenario_row, stage) = count(time_s) over (partition by scenario_row, stage)
),

limited as (
    select
        scenario_row,
        model_id,
        hardware_id,
        workload_id,
        stage,
        part,
        bound,
        sum(count * time_s) as time_s
    from timed
    where bound is not null
    group by all
)

select
    *,
    time_s / sum(time_s) over (partition by scenario_row, stage) as time_share
from limited
