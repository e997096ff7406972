-- question: How fast can one reader see tokens of each model, and on what?
-- grain: model_id
-- reads: serving
select
    model_id,
    hardware_id,
    precision,
    tp,
    tokens_per_s_per_user
from serving
where fits and batch = 1 and tokens_per_s_per_user is not null
qualify row_number() over (
    partition by model_id
    order by tokens_per_s_per_user desc, tp asc, scenario_row asc
) = 1
order by tokens_per_s_per_user desc, model_id asc
