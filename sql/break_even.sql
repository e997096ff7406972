-- break_even: between which batches one device overtakes another in cost per token, for the same model and workload.
-- grain: model_id, workload_id, input_len, output_len, precision, tp, pp, ep, cheaper_before, cheaper_after, batch_before
-- reads: serving
with priced as (
    select
        model_id,
        hardware_id,
        workload_id,
        input_len,
        output_len,
        precision,
        tp,
        pp,
        ep,
        sequences as batch,
        min(usd_per_million_output_tokens) as usd
    from serving
    where fits and usd_per_million_output_tokens is not null
    group by all
),

steps as (
    select
        a.model_id,
        a.workload_id,
        a.input_len,
        a.output_len,
        a.precision,
        a.tp,
        a.pp,
        a.ep,
        a.hardware_id as first_id,
        b.hardware_id as second_id,
        a.batch,
        ln(a.usd / b.usd) as lead,
        lead(a.batch) over pair as next_batch,
        lead(ln(a.usd / b.usd)) over pair as next_lead
    from priced as a
    inner join priced as b
        on
            a.model_id = b.model_id
            and a.workload_id is not distinct from b.workload_id
            and a.input_len is not distinct from b.input_len
            and a.output_len is not distinct from b.output_len
            and a.precision is not distinct from b.precision
            and a.tp is not distinct from b.tp
            and a.pp is not distinct from b.pp
            and a.ep is not distinct from b.ep
            and a.batch = b.batch
            and a.hardware_id <> b.hardware_id
    window
        pair as (
            partition by
                a.model_id, a.workload_id, a.input_len, a.output_len, a.precision, a.tp, a.pp, a.ep, a.hardware_id,
                b.hardware_id
            order by a.batch
        )
)

select
    model_id,
    workload_id,
    input_len,
    output_len,
    precision,
    tp,
    pp,
    ep,
    first_id as cheaper_before,
    second_id as cheaper_after,
    batch as batch_before,
    next_batch as batch_after,
    exp(ln(batch) + (ln(next_batch) - ln(batch)) * lead / (lead - next_lead)) as break_even_batch
from steps
where lead < 0 and next_lead >= 0
