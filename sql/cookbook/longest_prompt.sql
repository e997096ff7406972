-- question: How long may a prompt be if the first token must come within a quarter of a second, alone on one device?
-- grain: model_id, hardware_id
-- reads: serving
-- variables: ttft_s = 0.25
select
    model_id,
    hardware_id,
    max(input_len) as longest_input_len,
    arg_max(precision, input_len) as precision
from serving
where tp = 1 and batch = 1 and fits and ttft_s <= coalesce(cast(getvariable('ttft_s') as double), 0.25)
group by model_id, hardware_id
order by longest_input_len desc, model_id asc, hardware_id asc
