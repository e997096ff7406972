-- question: How much dearer is the deployment that takes the least energy than the one that costs the least?
-- grain: model_id
-- reads: serving
select
    model_id,
    arg_min(hardware_id, usd_per_million_output_tokens) as cheapest_on,
    arg_min(hardware_id, energy_j_per_token) as greenest_on,
    arg_min(usd_per_million_output_tokens, energy_j_per_token) / min(usd_per_million_output_tokens) as times_dearer,
    arg_min(energy_j_per_token, usd_per_million_output_tokens) / min(energy_j_per_token) as times_hungrier
from serving
where fits and usd_per_million_output_tokens is not null and energy_j_per_token is not null
group by model_id
order by model_id asc
