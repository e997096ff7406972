-- question: From which batch on does the KV cache take more memory than the weights?
-- grain: model_id, precision, input_len
-- reads: serving
select
    model_id,
    precision,
    input_len,
    min(batch) filter (where kv_cache_bytes > weight_memory_bytes) as batch,
    max(kv_cache_bytes / weight_memory_bytes) as greatest_ratio
from serving
where tp = 1 and weight_memory_bytes > 0
group by model_id, precision, input_len
order by model_id asc, precision asc, input_len asc
