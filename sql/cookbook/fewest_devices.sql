-- question: How many devices of a kind does each model need in 16 bits, with the shortest prompt and one request?
-- grain: model_id, hardware_id
-- reads: serving
with smallest as (
    select min(input_len) as input_len
    from serving
)

select
    s.model_id,
    s.hardware_id,
    min(s.n_devices) as devices,
    arg_min(s.memory_needed_bytes / s.memory_capacity_bytes, s.n_devices) as filled_share
from serving as s
inner join smallest as m on s.input_len = m.input_len
where s.fits and s.batch = 1 and s.precision = 'w16a16kv16'
group by s.model_id, s.hardware_id
order by devices desc, s.model_id asc, s.hardware_id asc
