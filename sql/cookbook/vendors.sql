-- question: Who is cheapest of each vendor, for each model?
-- grain: model_id, vendor
-- reads: hardware, serving
select
    s.model_id,
    h.vendor,
    min(s.usd_per_million_output_tokens) as cheapest_usd,
    arg_min(s.hardware_id, s.usd_per_million_output_tokens) as hardware_id
from serving as s
inner join hardware as h on s.hardware_id = h.hardware_id
where s.fits and s.usd_per_million_output_tokens is not null
group by s.model_id, h.vendor
order by s.model_id asc, cheapest_usd asc, h.vendor asc
