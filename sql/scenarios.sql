-- scenarios: what the views ask unless told otherwise: every model on every device, at the default sizes.
-- grain: model_id, hardware_id
-- reads: hardware, models, workloads
select
    m.model_id,
    h.hardware_id,
    w.workload_id,
    w.batch,
    w.input_len,
    w.output_len,
    w.cached_len
from models as m
cross join hardware as h
inner join workloads as w on w.workload_id = 'defaults'
