exec perl /lines.pl
