-- question: How did the cheapest million tokens fall with the year in which devices appeared?
-- grain: model_id, year
-- reads: hardware, serving
select
    s.model_id,
    h.year,
    min(s.usd_per_million_output_tokens) as cheapest_usd,
    arg_min(s.hardware_id, s.usd_per_million_output_tokens) as hardware_id
from serving as s
inner join hardware as h on s.hardware_id = h.hardware_id
where s.fits and s.usd_per_million_output_tokens is not null
group by s.model_id, h.year
order by s.model_id asc, h.year asc
