-- question: Which twenty devices write a million tokens for the least money, each in its best deployment?
-- grain: hardware_id
-- reads: serving
select
    hardware_id,
    min(usd_per_million_output_tokens) as cheapest_usd,
    arg_min(model_id, usd_per_million_output_tokens) as model_id,
    arg_min(precision, usd_per_million_output_tokens) as precision,
    arg_min(batch, usd_per_million_output_tokens) as batch
from serving
where fits and usd_per_million_output_tokens is not null
group by hardware_id
order by cheapest_usd asc, hardware_id asc
limit 20
