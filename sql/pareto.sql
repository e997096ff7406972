-- pareto: deployments of each model and workload that no other beats in both speed and throughput, or speed and cost.
-- grain: scenario_row
-- reads: serving
with possible as (
    select
        scenario_row,
        question_id,
        model_id,
        hardware_id,
        workload_id,
        batch,
        input_len,
        output_len,
        precision,
        tp,
        pp,
        ep,
        tokens_per_s_per_user,
        output_tokens_per_s_per_device,
        usd_per_million_output_tokens,
        e2e_s
    from serving
    where fits and tokens_per_s_per_user is not null
),

compared as (
    select
        *,
        max(output_tokens_per_s_per_device) over as_fast as throughput_as_fast,
        max(output_tokens_per_s_per_device) over faster as throughput_faster,
        min(usd_per_million_output_tokens) over as_early as usd_as_early,
        min(usd_per_million_output_tokens) over earlier as usd_earlier
    from possible
    window
        as_fast as (
            partition by question_id
            order by tokens_per_s_per_user desc
            range between unbounded preceding and current row
        ),
        faster as (
            partition by question_id
            order by tokens_per_s_per_user desc
            range between unbounded preceding and current row exclude group
        ),
        as_early as (
            partition by question_id
            order by e2e_s asc
            range between unbounded preceding and current row
        ),
        earlier as (
            partition by question_id
            order by e2e_s asc
            range between unbounded preceding and current row exclude group
        )
)

select
    * exclude (throughput_as_fast, throughput_faster, usd_as_early, usd_earlier),
    output_tokens_per_s_per_device = throughput_as_fast
    and output_tokens_per_s_per_device > coalesce(throughput_faster, 0) as is_on_throughput_front,
    coalesce(
        usd_per_million_output_tokens = usd_as_early and coalesce(usd_per_million_output_tokens < usd_earlier, true),
        false
    ) as is_on_cost_front
from compared
