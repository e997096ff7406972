-- break_even: between which batches one device overtakes another in cost per token, for the same question and replica.
-- grain: question_id, formats_id, tp, pp, ep, cp, cheaper_before, cheaper_after, batch_before
-- reads: serving
with priced as (
    select
        question_id,
        formats_id,
        device_id,
        coalesce(tp, 1) as tp,
        coalesce(pp, 1) as pp,
        coalesce(ep, 1) as ep,
        coalesce(cp, 1) as cp,
        sequences as batch,
        min(model_id) as model_id,
        min(workload_id) as workload_id,
        min(input_tokens) as input_len,
        min(output_tokens) as output_len,
        min(precision) as precision,
        min(usd_per_million_output_tokens) as usd
    from serving
    where fits and usd_per_million_output_tokens is not null
    group by all
),

steps as (
    select
        a.*,
        b.device_id as second_id,
        ln(a.usd / b.usd) as lead,
        lead(a.batch) over pair as next_batch,
        lead(ln(a.usd / b.usd)) over pair as next_lead
    from priced as a
    inner join priced as b
        on
            a.question_id = b.question_id
            and a.formats_id = b.formats_id
            and a.tp = b.tp
            and a.pp = b.pp
            and a.ep = b.ep
            and a.cp = b.cp
            and a.batch = b.batch
            and a.device_id <> b.device_id
    window
        pair as (
            partition by a.question_id, a.formats_id, a.tp, a.pp, a.ep, a.cp, a.device_id, b.device_id
            order by a.batch
        )
)

select
    question_id,
    formats_id,
    model_id,
    workload_id,
    input_len,
    output_len,
    precision,
    tp,
    pp,
    ep,
    cp,
    device_id as cheaper_before,
    second_id as cheaper_after,
    batch as batch_before,
    next_batch as batch_after,
    exp(ln(batch) + (ln(next_batch) - ln(batch)) * lead / (lead - next_lead)) as break_even_batch
from steps
where lead < 0 and next_lead >= 0
