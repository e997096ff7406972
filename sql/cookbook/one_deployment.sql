-- question: What does one deployment give: Llama-3-70B in 4 bits on two H100, 16 requests at once?
-- grain: scenario_row
-- reads: serving
select
    scenario_row,
    input_len,
    ttft_s,
    tpot_s,
    output_tokens_per_s,
    memory_needed_bytes,
    fits,
    usd_per_million_output_tokens
from serving
where
    model_id = 'meta-llama/Meta-Llama-3-70B'
    and hardware_id = 'nvidia_h100_sxm'
    and precision = 'w4a16kv16'
    and tp = 2
    and batch = 16
order by input_len asc
