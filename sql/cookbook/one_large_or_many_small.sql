-- question: Is a model cheaper on one large device or on several small ones?
-- grain: model_id, n_devices
-- reads: serving
select
    model_id,
    n_devices,
    min(usd_per_million_output_tokens) as cheapest_usd,
    arg_min(hardware_id, usd_per_million_output_tokens) as hardware_id,
    arg_min(precision, usd_per_million_output_tokens) as precision
from serving
where fits and usd_per_million_output_tokens is not null
group by model_id, n_devices
order by model_id asc, n_devices asc
