-- question: What limits decoding, by batch: compute, memory or the network?
-- grain: batch, tpot_bound
-- reads: serving
select
    batch,
    tpot_bound,
    count(*) as deployments,
    count(*) / sum(count(*)) over (partition by batch) as share
from serving
where fits and tpot_bound is not null
group by batch, tpot_bound
order by batch asc, tpot_bound asc
