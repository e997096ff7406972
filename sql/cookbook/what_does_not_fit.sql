-- question: Which devices are too small for how many of the deployments, and by how much?
-- grain: hardware_id
-- reads: serving
select
    hardware_id,
    count(*) filter (where not fits) as too_large,
    count(*) as deployments,
    median(shortfall_bytes) filter (where not fits) as median_shortfall_bytes
from serving
where fits is not null
group by hardware_id
order by too_large desc, hardware_id asc
