-- question: How much faster do tokens come with weights in 4 bits than in 16, by batch?
-- grain: batch
-- reads: serving
select
    wide.batch,
    count(*) as deployments,
    median(wide.tpot_s / narrow.tpot_s) as median_speedup,
    max(wide.tpot_s / narrow.tpot_s) as best_speedup
from serving as wide
inner join serving as narrow
    on
        wide.model_id = narrow.model_id
        and wide.hardware_id = narrow.hardware_id
        and wide.tp = narrow.tp
        and wide.batch = narrow.batch
        and wide.input_len = narrow.input_len
        and wide.output_len = narrow.output_len
where wide.precision = 'w16a16kv16' and narrow.precision = 'w4a16kv16' and wide.fits
group by wide.batch
order by wide.batch asc
