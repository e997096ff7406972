-- groq: Llama-2 on as many GroqChips as hold it: one after the other, or all at once on each layer, beside 300 tokens/s.
-- grain: model_id
-- reads: serving_of
with question as (
    select
        unnest(['meta-llama/Llama-2-7b-hf', 'meta-llama/Llama-2-70b-hf']) as model_id,
        'groq_lpu_v1' as hardware_id,
        1 as batch,
        1024 as input_len,
        128 as output_len
)

select
    model_id,
    min_devices,
    tokens_per_s_per_user as one_after_the_other_tokens_per_s,
    tokens_per_s_per_user * min_devices as all_at_once_tokens_per_s,
    300 as told_tokens_per_s,
    300 / tokens_per_s_per_user as share_of_one_after_the_other,
    300 / (tokens_per_s_per_user * min_devices) as share_of_all_at_once
from serving_of('question')
