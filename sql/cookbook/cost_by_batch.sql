-- question: How much cheaper is a token when more requests are answered at once?
-- grain: batch
-- reads: serving
select
    many.batch,
    median(many.usd_per_million_output_tokens / one.usd_per_million_output_tokens) as cost_share
from serving as one
inner join serving as many
    on
        one.model_id = many.model_id
        and one.hardware_id = many.hardware_id
        and one.precision = many.precision
        and one.tp = many.tp
        and one.input_len = many.input_len
        and one.output_len = many.output_len
where one.batch = 1 and one.fits and many.fits
group by many.batch
order by many.batch asc
