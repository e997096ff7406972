-- bitnet: BitNet b1.58's table of batches and throughput: 70B at sequences of 512 on two A100 of 80 GB, fp16 and ternary.
-- grain: weights
-- reads: serving_of
with printed as (
    select *
    from (
        values
            ('fp16', 'w16a16kv16', 16, 333),
            ('ternary', 'ternary', 176, 2977)
    ) as t (weights, "precision", paper_max_batch, paper_tokens_per_s)
),

one as (
    select
        'meta-llama/Llama-2-70b-hf' as model_id,
        'nvidia_a100_80gb_sxm' as hardware_id,
        1 as batch,
        1 as input_len,
        511 as output_len,
        2 as pp,
        "precision"
    from printed
),

largest as (
    select
        model_id,
        hardware_id,
        max_batch as batch,
        input_len,
        output_len,
        pp,
        "precision"
    from serving_of('one')
)

select
    p.weights,
    s.weight_memory_bytes,
    s.kv_bytes_per_token,
    s.batch as max_batch,
    p.paper_max_batch,
    s.output_tokens_per_s,
    p.paper_tokens_per_s
from serving_of('largest') as s
inner join printed as p on s."precision" = p."precision"
