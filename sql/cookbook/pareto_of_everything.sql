-- question: Which deployments of all are beaten by none in both price and time per output token?
-- grain: scenario_row
-- reads: serving
-- variables: input_len = 256
-- A deployment that another beats stands on no front, so a front of one prompt length, over steps of 5 % of the price,
-- leaves few of all rows to compare: the grid is read once.
with one_length as (
    select
        floor(20 * ln(usd_per_million_output_tokens)) as price_step,
        min(tpot_s) as fastest_s
    from serving
    where
        fits
        and input_len = coalesce(cast(getvariable('input_len') as double), 256)
        and usd_per_million_output_tokens > 0
    group by 1
),

steps as (select unnest(range(-400, 400)) as price_step),

to_beat as (
    select
        steps.price_step,
        coalesce(min(one_length.fastest_s), 'inf'::double) as fastest_s
    from steps
    left join one_length on one_length.price_step < steps.price_step
    group by 1
),

possible as (
    select serving.*
    from serving
    inner join to_beat on to_beat.price_step = floor(20 * ln(serving.usd_per_million_output_tokens))
    where
        serving.fits
        and serving.usd_per_million_output_tokens > 0
        and serving.tpot_s < to_beat.fastest_s
)

select
    scenario_row,
    model_id,
    hardware_id,
    precision,
    tp,
    batch,
    input_len,
    usd_per_million_output_tokens,
    tpot_s
from possible
qualify tpot_s < coalesce(
    min(tpot_s) over (
        order by usd_per_million_output_tokens asc, tpot_s asc, scenario_row asc
        rows between unbounded preceding and 1 preceding
    ),
    'inf'::double
)
order by usd_per_million_output_tokens asc
