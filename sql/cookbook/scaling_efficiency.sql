-- question: What is left of each device's throughput when a model is spread over 2, 4 or 8 of them?
-- grain: hardware_id, tp
-- reads: serving
select
    one.hardware_id,
    many.tp,
    median(many.output_tokens_per_s_per_device / one.output_tokens_per_s_per_device) as throughput_left
from serving as one
inner join serving as many
    on
        one.model_id = many.model_id
        and one.hardware_id = many.hardware_id
        and one.precision = many.precision
        and one.batch = many.batch
        and one.input_len = many.input_len
        and one.output_len = many.output_len
where one.tp = 1 and many.tp > 1 and one.fits and many.fits
group by one.hardware_id, many.tp
order by throughput_left desc, one.hardware_id asc, many.tp asc
