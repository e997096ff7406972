-- best_hardware: the deployments of each model and workload by cost, those that keep the limits of slo first.
-- grain: scenario_row
-- reads: slo
select
    *,
    case
        when is_accepted and usd_per_million_output_tokens is not null
            then row_number() over (
                partition by question_id, is_accepted
                order by usd_per_million_output_tokens asc nulls last, tpot_s asc, scenario_row asc
            )
    end as cost_rank
from slo
