-- question: Where does a token of each model take the least energy?
-- grain: model_id
-- reads: serving
select
    model_id,
    hardware_id,
    precision,
    tp,
    batch,
    energy_j_per_token
from serving
where fits and energy_j_per_token is not null
qualify row_number() over (
    partition by model_id
    order by energy_j_per_token asc, scenario_row asc
) = 1
order by energy_j_per_token asc, model_id asc
