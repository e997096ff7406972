-- api_break_even: the load from which a deployment of one's own is cheaper than buying by the token.
-- grain: scenario_row
-- reads: serving
-- variables: api_usd_per_million_input_tokens = 0, api_usd_per_million_output_tokens
with compared as (
    select
        scenario_row,
        model_id,
        hardware_id,
        workload_id,
        batch,
        requests_per_s,
        reason,
        fits,
        usd_per_million_output_tokens * output_tokens_per_s / 1e6 as replica_usd_per_s,
        (
            input_tokens * coalesce(cast(getvariable('api_usd_per_million_input_tokens') as double), 0)
            + output_tokens * cast(getvariable('api_usd_per_million_output_tokens') as double)
        ) / 1e6 as api_usd_per_request
    from serving
)

select
    scenario_row,
    model_id,
    hardware_id,
    workload_id,
    batch,
    api_usd_per_request,
    replica_usd_per_s / nullif(requests_per_s, 0) as usd_per_request,
    if(api_usd_per_request > 0, 86400 * replica_usd_per_s / api_usd_per_request, null) as break_even_requests_per_day,
    if(api_usd_per_request > 0, replica_usd_per_s / nullif(api_usd_per_request * requests_per_s, 0), null)
        as break_even_utilisation,
    case
        when api_usd_per_request is null
            then 'set the variable api_usd_per_million_output_tokens to the price asked'
        when api_usd_per_request < 0 or isnan(api_usd_per_request) then 'the price asked is below 0 or no number'
        when not coalesce(fits, false) or replica_usd_per_s is null then coalesce(reason, 'its cost is unknown')
        when replica_usd_per_s > api_usd_per_request * requests_per_s then 'buying by the token is cheaper at any load'
    end as reason
from compared
