-- measured_vs_predicted: each measured time of a model beside what the roofline says, the bound below which nothing can be, and the share of the device's peaks that was used.
-- grain: measurement_id
-- reads: measurements, predictions
with timed as (
    select
        m.* exclude (value),
        m.value as measured_value,
        p.fits,
        p.reason,
        case m.metric
            when 'decode_tokens_per_s_per_user' then 1 / m.value
            when 'decode_tokens_per_s' then m.batch / m.value
            when 'prefill_tokens_per_s' then m.batch * m.input_len / m.value
            when 'output_tokens_per_s' then m.batch * m.output_len / m.value
            when 'ttft_s' then m.value
            when 'tpot_s' then m.value
        end as measured_s,
        case
            when m.metric in ('ttft_s', 'prefill_tokens_per_s') then p.ttft_s
            when m.metric = 'output_tokens_per_s' then p.e2e_s
            else p.tpot_s
        end as time_s,
        case
            when m.metric in ('ttft_s', 'prefill_tokens_per_s') then 1
            when m.metric = 'output_tokens_per_s' and m.input_len > 0 then 1
            else 0
        end as prefills,
        case
            when m.metric in ('ttft_s', 'prefill_tokens_per_s') then 0
            when m.metric = 'output_tokens_per_s' then greatest(m.output_len - 1, 0)
            else 1
        end as steps,
        if(prefills > 0, p.prefill_floor_s, 0) + if(steps > 0, steps * p.decode_floor_s, 0) as floor_s,
        if(prefills > 0, p.prefill_matrix_s, 0) + if(steps > 0, steps * p.decode_matrix_s, 0) as matrix_s,
        if(prefills > 0, p.prefill_traffic_s, 0) + if(steps > 0, steps * p.decode_traffic_s, 0) as traffic_s
    from measurements as m
    join predictions as p on m.measurement_id = p.measurement_id
)

select
    * exclude (prefills, steps, matrix_s, traffic_s),
    matrix_s / nullif(measured_s, 0) as mfu,
    traffic_s / nullif(measured_s, 0) as mbu,
    time_s / nullif(measured_s, 0) as roofline_share,
    floor_s / nullif(measured_s, 0) as bound_share,
    measured_s / nullif(time_s, 0) - 1 as relative_error
from timed
where measured_s is not null
