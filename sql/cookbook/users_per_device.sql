-- question: How many readers does a device keep happy, each with 30 tokens per second?
-- grain: model_id, hardware_id
-- reads: serving
-- variables: tokens_per_s = 30
select
    model_id,
    hardware_id,
    max(batch / n_devices) as readers_per_device,
    arg_max(precision, batch / n_devices) as precision,
    arg_max(tp, batch / n_devices) as tp
from serving
where fits and tokens_per_s_per_user >= coalesce(cast(getvariable('tokens_per_s') as double), 30)
group by model_id, hardware_id
order by readers_per_device desc, model_id asc, hardware_id asc
