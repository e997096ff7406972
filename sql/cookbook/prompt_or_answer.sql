-- question: What share of an answer's time goes into the prompt, by length of the prompt?
-- grain: input_len
-- reads: serving
select
    input_len,
    quantile_cont(ttft_s / e2e_s, 0.1) as low_share,
    median(ttft_s / e2e_s) as median_share,
    quantile_cont(ttft_s / e2e_s, 0.9) as high_share
from serving
where fits and e2e_s > 0
group by input_len
order by input_len asc
