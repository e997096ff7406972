-- question: Which models run on a single device only once they are quantized?
-- grain: model_id, hardware_id
-- reads: serving
select
    model_id,
    hardware_id,
    list(distinct precision order by precision) filter (where fits) as precisions
from serving
where tp = 1
group by model_id, hardware_id
having bool_or(fits) and not coalesce(bool_or(fits) filter (where precision = 'w16a16kv16'), false)
order by model_id asc, hardware_id asc
