-- what_helps: what every technique would change for a scenario, by how much, and why some change nothing.
-- grain: scenario_id, technique
-- reads: scenarios, techniques
with tried as (
    select list(technique_id order by technique_id) as techniques
    from techniques
    where "group" not in ('accounting', 'money', 'memory')
),

asked as (
    select
        s.rowid as scenario_id,
        s.model_id,
        s.hardware_id,
        s.batch,
        s.input_len,
        s.output_len,
        s.precision,
        s.technique as before,
        unnest(technique_answers(to_json(s), list_append(t.techniques, null))) as answer
    from scenarios as s
    cross join tried as t
),

compared as (
    select
        a.* exclude (answer),
        a.answer as after,
        first(a.answer) over (
            partition by a.scenario_id, a.model_id, a.hardware_id
            order by a.answer.technique nulls first
        ) as plain
    from asked as a
),

-- 12 places: the last ones differ with the order in which floats are added up, which is no change
changed as (
    select
        c.* exclude (after, plain),
        c.after.technique as technique,
        round(c.after.ttft_s / nullif(c.plain.ttft_s, 0) - 1, 12) as ttft_change,
        round(c.after.tpot_s / nullif(c.plain.tpot_s, 0) - 1, 12) as tpot_change,
        round(c.after.output_tokens_per_s / nullif(c.plain.output_tokens_per_s, 0) - 1, 12) as throughput_change,
        round(c.after.memory_needed_bytes / nullif(c.plain.memory_needed_bytes, 0) - 1, 12) as memory_change,
        round(c.after.usd_per_million_output_tokens / nullif(c.plain.usd_per_million_output_tokens, 0) - 1, 12) as cost_change,
        round(c.after.energy_j_per_token / nullif(c.plain.energy_j_per_token, 0) - 1, 12) as energy_change,
        c.plain.ttft_bound as prefill_bound_before,
        c.after.ttft_bound as prefill_bound_after,
        c.plain.tpot_bound as decode_bound_before,
        c.after.tpot_bound as decode_bound_after,
        c.plain.fits as fits_before,
        c.after.fits as fits_after,
        c.after.ttft_s is not null as applies,
        case
            when c.after.prefill_weight_bytes < 0.999 * c.plain.prefill_weight_bytes then 'fewer weight bytes'
            when c.after.prefill_kv_write_bytes < 0.999 * c.plain.prefill_kv_write_bytes then 'fewer cache bytes'
            when c.after.prefill_memory_bytes < 0.999 * c.plain.prefill_memory_bytes then 'fewer bytes'
        end as prefill_bytes_saved,
        case when c.after.prefill_ops < 0.999 * c.plain.prefill_ops then 'fewer operations' end as prefill_ops_saved,
        case
            when c.after.decode_weight_bytes < 0.999 * c.plain.decode_weight_bytes then 'fewer weight bytes'
            when c.after.decode_kv_read_bytes < 0.999 * c.plain.decode_kv_read_bytes then 'fewer cache bytes'
            when c.after.decode_memory_bytes < 0.999 * c.plain.decode_memory_bytes then 'fewer bytes'
        end as decode_bytes_saved,
        case when c.after.decode_ops < 0.999 * c.plain.decode_ops then 'fewer operations' end as decode_ops_saved,
        c.after.reason
    from compared as c
    where c.after.technique is not null
),

explained as (
    select
        *,
        case
            when not applies or abs(ttft_change) >= 0.001 then null
            when prefill_bound_before <> 'memory' and prefill_bytes_saved is not null
                then concat('prefill is ', prefill_bound_before, '-bound: ', prefill_bytes_saved, ' change nothing')
            when prefill_bound_before <> 'compute' and prefill_ops_saved is not null
                then concat('prefill is ', prefill_bound_before, '-bound: ', prefill_ops_saved, ' change nothing')
            when coalesce(prefill_bytes_saved, prefill_ops_saved) is null then 'prefill does the same work'
            else 'prefill saves too little to matter'
        end as prefill_why,
        case
            when not applies or tpot_change is null or abs(tpot_change) >= 0.001 then null
            when decode_bound_before <> 'memory' and decode_bytes_saved is not null
                then concat('decode is ', decode_bound_before, '-bound: ', decode_bytes_saved, ' change nothing')
            when decode_bound_before <> 'compute' and decode_ops_saved is not null
                then concat('decode is ', decode_bound_before, '-bound: ', decode_ops_saved, ' change nothing')
            when coalesce(decode_bytes_saved, decode_ops_saved) is null then 'decode does the same work'
            else 'decode saves too little to matter'
        end as decode_why
    from changed
)

select
    e.* exclude (prefill_bytes_saved, prefill_ops_saved, decode_bytes_saved, decode_ops_saved, reason),
    t.label,
    t."group",
    case when e.ttft_change is not null then rank() over (by_scenario order by e.ttft_change) end as ttft_rank,
    case when e.tpot_change is not null then rank() over (by_scenario order by e.tpot_change) end as tpot_rank,
    case
        when e.throughput_change is not null then rank() over (by_scenario order by e.throughput_change desc)
    end as throughput_rank,
    case when e.memory_change is not null then rank() over (by_scenario order by e.memory_change) end as memory_rank,
    case when e.cost_change is not null then rank() over (by_scenario order by e.cost_change) end as cost_rank,
    case when e.energy_change is not null then rank() over (by_scenario order by e.energy_change) end as energy_rank,
    t.not_modelled,
    e.reason
from explained as e
inner join techniques as t on e.technique = t.technique_id
window by_scenario as (partition by e.scenario_id, e.model_id, e.hardware_id)
order by e.scenario_id, throughput_rank nulls last, e.technique
